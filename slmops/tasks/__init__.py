"""One module a task type: answer parser, primary measure and the way rows become training rows."""
