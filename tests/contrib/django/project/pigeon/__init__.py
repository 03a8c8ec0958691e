"""The app: letters, and the task that sends them."""
