"""Penalised least squares in blocks: products, factorisation, criterion and adjoint of models with random effects; for both engines."""
