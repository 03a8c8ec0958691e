"""With Django: a small project, post, whose one app, pigeon, sends letters."""
