"""What the Open Inference Protocol means: requests, answers, one method for each call."""
