"""What a run says of itself: status, per-update metrics, the summary and the picture."""
