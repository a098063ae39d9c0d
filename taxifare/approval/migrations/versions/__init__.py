"""One module a step, in the order of their revisions; a step that was released is never edited."""
