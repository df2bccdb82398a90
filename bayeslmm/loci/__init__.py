"""Thousands of loci: one model whose counts are swapped per locus, from files of methylation calls to tables of posteriors."""
