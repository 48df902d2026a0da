"""The suites, one file each: a name before the colon of a task."""
