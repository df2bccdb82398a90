# Writes families.json: densities by R's own functions, and glmmTMB's log-likelihood at its estimates for models without random effects.
suppressMessages({library(glmmTMB); library(jsonlite)})
set.seed(20260401)
n <- 120
x <- round(rnorm(n), 3)
mu <- exp(0.6 + 0.4 * x)
data <- data.frame(
  x = x,
  nb = rnbinom(n, mu = mu, size = 1.7),
  nb1 = rnbinom(n, mu = mu, size = mu / 1.4),
  zip = ifelse(runif(n) < plogis(-0.7 + 0.5 * x), 0, rpois(n, mu)),
  zinb = ifelse(runif(n) < 0.3, 0, rnbinom(n, mu = 2 * mu, size = 2)),
  trials = sample(3:15, n, replace = TRUE),
  prop = round(rbeta(n, 6 * plogis(0.4 * x), 6 * plogis(-0.4 * x)), 4),
  positive = round(rgamma(n, 3, 3 / mu), 4) + 1e-4
)
data$bb <- rbinom(n, data$trials, data$prop)
data$zib <- ifelse(runif(n) < 0.25, 0, rbinom(n, data$trials, plogis(0.3 + 0.5 * x)))
fit <- function(family, y, formula, zi = ~0, disp = ~1, rows = rep(TRUE, n), trials = NULL, glmmtmb = family) {
  m <- glmmTMB(formula, data = data[rows, ], family = glmmtmb, ziformula = zi, dispformula = disp)
  list(family = family, y = y[rows], x = data$x[rows], trials = if (is.null(trials)) NULL else trials[rows],
       beta = unname(fixef(m)$cond), zi = unname(fixef(m)$zi), disp = unname(fixef(m)$disp), loglik = as.numeric(logLik(m)))
}
data$failures <- data$trials - data$bb
data$zifail <- data$trials - data$zib
positive <- data$zinb > 0
fits <- list(
  fit("negative_binomial", data$nb, nb ~ x, glmmtmb = nbinom2()),
  fit("negative_binomial", data$nb, nb ~ x, disp = ~x, glmmtmb = nbinom2()),
  fit("negative_binomial1", data$nb1, nb1 ~ x, glmmtmb = nbinom1()),
  fit("beta_binomial", data$bb, cbind(bb, failures) ~ x, trials = data$trials, glmmtmb = betabinomial()),
  fit("beta", data$prop, prop ~ x, glmmtmb = beta_family()),
  fit("zero_inflated_poisson", data$zip, zip ~ x, zi = ~x, glmmtmb = poisson()),
  fit("zero_inflated_negative_binomial", data$zinb, zinb ~ x, zi = ~1, glmmtmb = nbinom2()),
  fit("zero_inflated_binomial", data$zib, cbind(zib, zifail) ~ x, zi = ~1, trials = data$trials, glmmtmb = binomial()),
  fit("hurdle_poisson", data$zip, zip ~ x, zi = ~x, glmmtmb = truncated_poisson()),
  fit("hurdle_negative_binomial", data$zinb, zinb ~ x, zi = ~1, glmmtmb = truncated_nbinom2()),
  fit("truncated_poisson", data$zinb, zinb ~ x, rows = positive, glmmtmb = truncated_poisson()),
  fit("truncated_negative_binomial", data$zinb, zinb ~ x, rows = positive, glmmtmb = truncated_nbinom2())
)
k <- c(0, 1, 2, 9, 40)
r <- c(0.02, 0.7, 1.9, 12)
densities <- list(
  list(family = "negative_binomial", y = k, mu = 2.3, aux = list(shape = 1.7), log = dnbinom(k, mu = 2.3, size = 1.7, log = TRUE)),
  list(family = "negative_binomial", y = k, mu = 2.3, aux = list(shape = 1e4), log = dnbinom(k, mu = 2.3, size = 1e4, log = TRUE)),
  list(family = "negative_binomial1", y = k, mu = 2.3, aux = list(phi = 1.4), log = dnbinom(k, mu = 2.3, size = 2.3 / 1.4, log = TRUE)),
  list(family = "gamma", y = r, mu = 1.6, aux = list(shape = 3.1), log = dgamma(r, 3.1, rate = 3.1 / 1.6, log = TRUE)),
  list(family = "inverse_gaussian", y = r, mu = 1.6, aux = list(shape = 3.1),
       log = 0.5 * log(3.1 / (2 * pi * r^3)) - 3.1 * (r - 1.6)^2 / (2 * 1.6^2 * r)),
  list(family = "beta", y = c(0.01, 0.4, 0.97), mu = 0.3, aux = list(phi = 4.2), log = dbeta(c(0.01, 0.4, 0.97), 0.3 * 4.2, 0.7 * 4.2, log = TRUE)),
  list(family = "lognormal", y = r, mu = 0.4, aux = list(sigma = 0.9), log = dlnorm(r, 0.4, 0.9, log = TRUE)),
  list(family = "student", y = r, mu = 0.4, aux = list(sigma = 0.9, nu = 4.5), log = dt((r - 0.4) / 0.9, 4.5, log = TRUE) - log(0.9)),
  list(family = "truncated_poisson", y = k[-1], mu = 0.3, aux = list(), log = dpois(k[-1], 0.3, log = TRUE) - log(-expm1(-0.3)))
)
names(densities[[9]]$aux) <- character(0)
write_json(list(made_with = paste("R", getRversion(), "glmmTMB", packageVersion("glmmTMB")), fits = fits, densities = densities),
           "tests/reference/families.json", digits = NA, auto_unbox = TRUE, null = "null")
