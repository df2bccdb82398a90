# Random effects with a known covariance among levels by lme4's modular functions (Zt of the term times the Cholesky factor of
# the matrix, as in pedigreemm), and Kenward-Roger by pbkrtest on such fits; writes known_covariance.json with its data.
# Usage: Rscript known_covariance.R <output>
suppressMessages({library(lme4); library(pbkrtest); library(jsonlite)})
RNGversion("4.2.0"); set.seed(20240611)

pedigree <- function(n, founders) {  # numerator relationship matrix of a random pedigree, by the tabular method
  A <- diag(n)
  for (i in (founders + 1):n) {
    parents <- sample(i - 1, 2)
    A[i, 1:(i - 1)] <- A[1:(i - 1), i] <- 0.5 * (A[parents[1], 1:(i - 1)] + A[parents[2], 1:(i - 1)])
    A[i, i] <- 1 + 0.5 * A[parents[1], parents[2]]
  }
  dimnames(A) <- rep(list(sprintf("an%02d", 1:n)), 2)
  A
}
phylogeny <- function(n) {  # shared branch lengths of a random tree, its height 1
  tree <- hclust(dist(matrix(rnorm(2 * n), n)), "average")
  K <- 1 - as.matrix(cophenetic(tree)) / max(tree$height)
  dimnames(K) <- rep(list(paste0("sp", 1:n)), 2)
  K
}
A <- pedigree(60, 12)
P <- phylogeny(30)
effects <- function(K, S) { b <- t(chol(K)) %*% matrix(rnorm(nrow(K) * ncol(S)), nrow(K)) %*% chol(S); rownames(b) <- rownames(K); b }

animal <- sample(rep(rownames(A)[13:60], times = sample(2:6, 48, TRUE)))  # the founders have no records
n <- length(animal)
x <- round(rnorm(n), 3); herd <- paste0("h", sample(9, n, TRUE))
b <- effects(A, matrix(c(1.2, 0.25, 0.25, 0.5), 2)); h <- setNames(rnorm(9, 0, 0.8), paste0("h", 1:9))
animals <- data.frame(animal, herd, x, y = round(3 + 0.6 * x + b[animal, 1] + b[animal, 2] * x + h[herd] + rnorm(n, 0, 1.1), 4))
species <- c(rownames(P), sample(rownames(P), 25, TRUE))
z <- round(runif(length(species)), 3)
trees <- data.frame(species, z, y = round(1 - 2 * z + effects(P, matrix(1.5))[species, 1] + rnorm(length(species), 0, 0.7), 4))

tight <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore",
  optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-12, ftol_abs = 1e-13, xtol_rel = 1e-14, ftol_rel = 1e-16, maxeval = 1e5))
fitted <- function(formula, data, K, group, reml) {
  parsed <- lFormula(as.formula(formula), data, REML = reml, control = tight)
  terms <- names(parsed$reTrms$cnms)
  roots <- lapply(seq_along(terms), function(i) {
    k <- length(parsed$reTrms$cnms[[i]]); levels <- rownames(parsed$reTrms$Ztlist[[i]])[seq(1, nrow(parsed$reTrms$Ztlist[[i]]), k)]
    if (terms[i] == group) kronecker(t(chol(K[levels, levels])), diag(k)) else diag(length(levels) * k)
  })
  parsed$reTrms$Ztlist <- Map(function(Zt, R) as(t(R) %*% Zt, "dgCMatrix"), parsed$reTrms$Ztlist, roots)
  labels <- rownames(parsed$reTrms$Zt)
  parsed$reTrms$Zt <- do.call(rbind, parsed$reTrms$Ztlist)
  devfun <- do.call(mkLmerDevfun, c(parsed, list(control = tight)))
  best <- optimizeLmer(devfun, optimizer = tight$optimizer, control = tight$optCtrl, calc.derivs = FALSE)
  fit <- mkMerMod(environment(devfun), best, parsed$reTrms, fr = parsed$fr)
  list(fit = fit, roots = roots, labels = labels)
}
case <- function(formula, ours, data, K, group, reml) {
  made <- fitted(formula, get(data), get(K), group, reml)
  fit <- made$fit
  Gp <- getME(fit, "Gp"); w <- as.numeric(getME(fit, "b"))
  b <- lapply(seq_along(made$roots), function(i) as.numeric(made$roots[[i]] %*% w[(Gp[i] + 1):Gp[i + 1]]))
  levels <- lapply(seq_along(made$roots), function(i) made$labels[(Gp[i] + 1):Gp[i + 1]])
  out <- list(formula = ours, data = data, matrix = K, reml = reml, theta = I(getME(fit, "theta")), sigma = sigma(fit),
    criterion = if (reml) REMLcrit(fit) else as.numeric(deviance(fit)), fixef = as.list(fixef(fit)), se = sqrt(diag(as.matrix(vcov(fit)))),
    b = setNames(b, names(fit@cnms)), levels = setNames(levels, names(fit@cnms)))
  if (reml) {
    V <- vcov(fit); adjusted <- vcovAdj(fit)
    out$kr_se <- sqrt(diag(as.matrix(adjusted)))
    out$kr_df <- sapply(seq_along(fixef(fit)), function(j) { L <- matrix(as.numeric(seq_along(fixef(fit)) == j), 1); Lb_ddf(L, V, adjusted) })
  }
  out
}
both <- function(...) list(case(..., reml = TRUE), case(..., reml = FALSE))
cases <- c(
  both("y ~ x + (1 | animal)", "y ~ x + (1 | gr(animal, cov = A))", "animals", "A", "animal"),
  both("y ~ x + (x | animal)", "y ~ x + (x | gr(animal, cov = A))", "animals", "A", "animal"),
  both("y ~ x + (x | animal) + (1 | herd)", "y ~ x + (x | gr(animal, cov = A)) + (1 | herd)", "animals", "A", "animal"),
  both("y ~ z + (1 | species)", "y ~ z + (1 | gr(species, cov = P))", "trees", "P", "species"))
matrices <- lapply(list(A = A, P = P), function(K) list(labels = rownames(K), values = unname(K)))
write(toJSON(list(data = list(animals = animals, trees = trees), matrices = matrices, cases = cases), digits = 16, auto_unbox = TRUE, dataframe = "columns"), commandArgs(trailingOnly = TRUE)[1])
