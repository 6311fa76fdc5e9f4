"""Redis: the queue, announcements, and the text of answers in progress."""
