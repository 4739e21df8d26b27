"""What one line says: its time, level, message and the rest, for JSON lines, "|"-separated lines and plain text."""
