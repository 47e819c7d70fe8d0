"""What runs execute, described: settings, what makes a run itself, commands, estimates."""
