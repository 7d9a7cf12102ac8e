"""The options of the commands: one module and one record for each subject."""
