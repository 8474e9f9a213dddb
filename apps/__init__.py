"""What people run on their own pictures: the batch predictor and the app."""
