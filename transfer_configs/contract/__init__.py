"""What the processes of all frameworks share; put on their path by each `train.py`, so it imports torch and no more."""
