grant {role} to {member}
