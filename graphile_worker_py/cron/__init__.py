"""Cron: crontab.py reads what is asked for, schedule.py says when it is due, scheduler.py makes jobs of it."""
