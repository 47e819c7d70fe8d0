"""Tell people how runs end: what is to be told, on which way it goes, and that it goes once."""
