# PSIS-LOO of rows and groups by the R package loo, on densities written out in R, of draws that tests/reference/test_loo.py makes alike;
# writes loo.json. Usage: Rscript loo.R <output>
suppressMessages({library(loo); library(jsonlite)})
S <- 1000
quantiles <- function(step, shift) qnorm(((seq_len(S) * step + shift) %% S + 0.5) / S)   # a permutation of the quantiles of N(0, 1)
J <- 6; n <- 30
group <- rep(seq_len(J), length.out = n)
x <- rep(c(-1, 0.5, 1, 0, -0.5), each = J)
y <- c(2.1, 1.3, 0.4, 3.2, 1.9, 0.7, 2.9, 1.1, 1.6, 4.4, 2.2, 1.0, 3.3, 2.8, 1.5, 4.1, 3.9, 2.4, 2.6, 1.7, 0.2, 5.1, 2.3, 1.2, 1.8, 1.4, 0.9, 3.1, 2.0, -0.6)
of_model <- function(slope) {
  b0 <- 2.1 + 0.35 * quantiles(389, 0)
  b1 <- slope * (0.6 + 0.2 * quantiles(617, 7))
  tau <- exp(-0.1 + 0.3 * quantiles(211, 3))
  sigma <- exp(0.15 + 0.12 * quantiles(733, 11))
  r <- sapply(seq_len(J), function(j) tau * (0.5 * (j - 3.5) / 2 + 0.4 * quantiles(100 * j + 7, 13 * j)))
  mu <- outer(b0, rep(1, n)) + outer(b1, x)
  conditional <- sapply(seq_len(n), function(i) dnorm(y[i], mu[, i] + r[, group[i]], sigma, log = TRUE))
  marginal <- matrix(0, S, n); groups <- matrix(0, S, J)
  for (s in seq_len(S)) {
    V <- tau[s]^2 * outer(group, group, "==") + sigma[s]^2 * diag(n)
    Q <- solve(V); g <- Q %*% (y - mu[s, ])
    marginal[s, ] <- dnorm(y, y - g / diag(Q), 1 / sqrt(diag(Q)), log = TRUE)
    for (j in seq_len(J)) {
      own <- group == j
      e <- (y - mu[s, ])[own]
      groups[s, j] <- -0.5 * (sum(own) * log(2 * pi) + determinant(V[own, own])$modulus + sum(e * solve(V[own, own], e)))
    }
  }
  lapply(list(conditional = conditional, marginal = marginal, group = groups), function(l) suppressWarnings(loo(l, r_eff = rep(1, ncol(l)))))
}
shown <- function(l) list(elpd = l$estimates["elpd_loo", 1], se = l$estimates["elpd_loo", 2], p = l$estimates["p_loo", 1],
                          elpd_i = unname(l$pointwise[, "elpd_loo"]), k = unname(l$diagnostics$pareto_k))
one <- of_model(1); two <- of_model(0)
kinds <- c("conditional", "marginal", "group")
out <- list(
  data = list(y = y, x = x, group = group),
  one = lapply(one, shown), two = lapply(two, shown),
  difference = setNames(lapply(kinds, function(k) {
    found <- loo_compare(list(one = one[[k]], two = two[[k]]))
    list(best = rownames(found)[1], elpd_diff = found[2, "elpd_diff"], se_diff = found[2, "se_diff"],
         weights = as.numeric(stacking_weights(cbind(one[[k]]$pointwise[, 1], two[[k]]$pointwise[, 1]))))
  }), kinds)
)
write(toJSON(out, digits = 10, auto_unbox = TRUE), commandArgs(TRUE)[1])
