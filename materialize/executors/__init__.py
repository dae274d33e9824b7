"""Where the steps of one run compute."""
