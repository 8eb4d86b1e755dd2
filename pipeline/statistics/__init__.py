"""What methods need to know of the dense model: one pass over calibration text, or gradients."""
