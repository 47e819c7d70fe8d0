"""New projects: their study, a targets file of what this machine knows, the examples that come along."""
