"""What a fit says in other terms: marginal means and their contrasts, shares of variance explained."""
