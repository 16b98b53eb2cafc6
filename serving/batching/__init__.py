"""What a live version does: its queue, the plan, the workers."""
