-- Again as the role that runs this.
reset role
