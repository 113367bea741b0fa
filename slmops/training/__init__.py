"""Objectives, batches and the one training loop; fine-tuning is the case without a teacher."""
