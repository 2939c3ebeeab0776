"""The composition root: settings, workload and parts put together into something to run."""
