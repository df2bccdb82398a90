# Writes ordinal.json: probabilities of ordered levels by brms's own functions, and VGAM's maximum-likelihood fits.
suppressMessages({library(VGAM); library(jsonlite)})
thres <- c(-1.2, -0.1, 0.4, 1.9)
etas <- c(-6, -0.7, 0, 0.35, 2.4, 7)
probabilities <- list()
for (family in c("cumulative", "sratio", "cratio", "acat")) for (link in c("logit", "probit", "cloglog")) {
  density <- get(paste0("d", family), envir = asNamespace("brms"))
  values <- lapply(etas, function(eta) as.numeric(density(1:5, eta = eta, thres = matrix(thres, nrow = 1), disc = 1, link = link)))
  probabilities[[length(probabilities) + 1]] <- list(family = family, link = link, probabilities = do.call(rbind, values))
}
set.seed(20260402)
x <- round(rnorm(150), 3)
y <- cut(0.8 * x + rlogis(150), c(-Inf, -1.5, 0.1, 1.4, Inf), labels = FALSE)
fit <- function(family, link, vglm_family, sign_tau, sign_b) {
  m <- vglm(ordered(y) ~ x, vglm_family, epsilon = 1e-12, maxit = 100)
  list(family = family, link = link, thresholds = unname(sign_tau * coef(m)[1:3]), b = unname(sign_b * coef(m)[4]), loglik = as.numeric(logLik(m)))
}
fits <- list(
  fit("cumulative", "logit", cumulative(parallel = TRUE), 1, -1),
  fit("cumulative", "probit", cumulative("probitlink", parallel = TRUE), 1, -1),
  fit("cumulative", "cloglog", cumulative("clogloglink", parallel = TRUE), 1, -1),
  fit("sratio", "logit", sratio(parallel = TRUE), 1, -1),
  fit("sratio", "probit", sratio("probitlink", parallel = TRUE), 1, -1),
  fit("cratio", "logit", cratio(parallel = TRUE), -1, 1),
  fit("cratio", "cloglog", cratio("clogloglink", parallel = TRUE), -1, 1),
  fit("acat", "logit", acat(parallel = TRUE), -1, 1)
)
suppressMessages(library(ordinal))
g <- rep(1:15, 10)
z <- cut(0.8 * x + rnorm(15, sd = 0.7)[g] + rlogis(150), c(-Inf, -1, 0.4, 1.6, Inf), labels = FALSE)
mixed <- data.frame(x = x, g = factor(g), z = ordered(z))
# clmm's "cloglog" and "loglog" are each other's of clm and VGAM (compare their log-likelihoods without random effects).
named_by_clmm <- c(logit = "logit", probit = "probit", cloglog = "loglog")
tight <- clmm.control(innerCtrl = "noWarn", gradTol = 1e-9, maxIter = 500)
clmms <- lapply(list(c("logit", 1), c("probit", 1), c("cloglog", 1), c("logit", 15)), function(case) {
  m <- clmm(z ~ x + (1 | g), mixed, link = named_by_clmm[[case[1]]], nAGQ = as.integer(case[2]), control = tight)
  list(link = case[1], n_agq = as.integer(case[2]), loglik = as.numeric(logLik(m)), thresholds = unname(m$alpha), b = unname(m$beta),
       sd = as.numeric(attr(VarCorr(m)$g, "stddev")), se = unname(coef(summary(m))[, 2]))
})
write_json(list(made_with = paste("R", getRversion(), "brms", packageVersion("brms"), "VGAM", packageVersion("VGAM"), "ordinal", packageVersion("ordinal")), thresholds = thres,
                etas = etas, probabilities = probabilities, x = x, y = y, fits = fits,
                g = g, z = z, clmm = clmms),
           "tests/reference/ordinal.json", digits = NA, auto_unbox = TRUE)
