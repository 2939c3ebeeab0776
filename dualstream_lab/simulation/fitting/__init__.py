"""What each step costs, from recorded runs, and how well that predicts."""
