"""What people keep for themselves: bookmarks and saved views."""
