"""The Django migrations: one for each file in the migrations/ of this project, and of the same name."""
