"""Conditions under which assets are built by themselves: evaluated for whole assets at a time, and requested."""
