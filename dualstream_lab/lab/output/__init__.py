"""How a verdict leaves the lab: self-contained HTML pages with plots, helpers for Markdown, JUnit XML."""
