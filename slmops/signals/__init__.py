"""What a teacher's distribution looks like on disk and in a batch."""
