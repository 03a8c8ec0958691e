-- From here on as the owner, so that all that is made belongs to it.
set local role {owner}
