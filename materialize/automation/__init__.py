"""What goes on by itself: schedules, and the round in which everything that is due is evaluated."""
