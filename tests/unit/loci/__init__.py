"""Of thousands of loci."""
