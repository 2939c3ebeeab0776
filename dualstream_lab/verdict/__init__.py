"""What was measured, held against what was asked: measures, thresholds, who saturated, and the verdict."""
