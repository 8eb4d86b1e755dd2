"""What techniques are made of: imported when they run, not when they are configured."""
