"""Whether a comparison was fair: by configurations, and by what runs show."""
