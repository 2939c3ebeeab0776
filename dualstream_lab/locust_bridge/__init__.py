"""The load engine under Locust: the only room that imports it, and only in processes of Locust."""
