"""What a fit says in other terms: predictions, comparisons, slopes, marginal means and their contrasts, shares of variance explained."""
