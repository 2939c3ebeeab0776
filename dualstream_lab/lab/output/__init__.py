"""How a verdict leaves the lab: self-contained HTML pages with plots, JUnit XML, JSON."""
