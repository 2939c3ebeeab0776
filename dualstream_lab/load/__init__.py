"""Driving load: an open-loop driver, and listeners in processes of their own."""
