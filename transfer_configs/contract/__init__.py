"""What the processes of all frameworks share. It imports torch and NumPy, which every framework's Python has."""
