"""Steps from one schema to the next. Run at every start; released steps are never edited."""
