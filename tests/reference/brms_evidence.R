# Golden values of brms and bridgesampling: log marginal likelihoods, hypotheses, Savage-Dickey ratios, Bayesian R2.
# Rscript brms_evidence.R brms_evidence.json
suppressMessages({
  library(brms)
  library(bridgesampling)
  library(bayestestR)
  library(jsonlite)
  library(lme4)
})
rstan::rstan_options(boost_lib = "/usr/include")
out <- commandArgs(TRUE)[1]

fitted <- function(formula, data, family, priors) {
  brm(formula, data = data, family = family, prior = priors, sample_prior = "yes", save_pars = save_pars(all = TRUE),
      chains = 4, iter = 11000, warmup = 1000, cores = 1, seed = 20240201, refresh = 0, silent = 2,
      control = list(adapt_delta = 0.95))
}

evidence <- function(fit) {
  set.seed(1)
  normal <- bridge_sampler(fit, method = "normal", silent = TRUE)
  warp3 <- bridge_sampler(fit, method = "warp3", repetitions = 4, silent = TRUE)$logml
  list(normal = normal$logml, normal_error = sqrt(error_measures(normal)$re2), warp3 = mean(warp3), warp3_error = sd(warp3) / 2)
}

gaussian_priors <- c(
  prior(normal(0, 20), class = b),
  prior(student_t(3, 288.7, 59.3), class = Intercept),
  prior(student_t(3, 0, 59.3), class = sd),
  prior(student_t(3, 0, 59.3), class = sigma)
)
binomial_priors <- c(
  prior(normal(0, 2.5), class = b),
  prior(student_t(3, 0, 2.5), class = Intercept),
  prior(student_t(3, 0, 2.5), class = sd)
)

slopes <- fitted(Reaction ~ Days + (Days | Subject), sleepstudy, gaussian(), c(gaussian_priors, prior(lkj(2), class = cor)))
intercepts <- fitted(Reaction ~ Days + (1 | Subject), sleepstudy, gaussian(), gaussian_priors)
period <- fitted(incidence | trials(size) ~ period + (1 | herd), cbpp, binomial(), binomial_priors)
none <- fitted(incidence | trials(size) ~ 1 + (1 | herd), cbpp, binomial(), binomial_priors[-1, ])

# Draws of one model, thinned, and what brms says of exactly these.
kept <- round(seq(1, ndraws(slopes), length.out = 400))
chosen <- c("b_Intercept", "b_Days", "sd_Subject__Intercept", "sd_Subject__Days", "cor_Subject__Intercept__Days", "sigma",
            "r_Subject[308,Intercept]", "r_Subject[308,Days]", "r_Subject[309,Intercept]", "r_Subject[309,Days]")
draws <- as.data.frame(slopes, variable = chosen)[kept, ]
draws <- as.data.frame(lapply(draws, signif, digits = 6), check.names = FALSE)

rows <- function(table) {
  table <- table[, !(names(table) %in% "Group"), drop = FALSE]
  lapply(seq_len(nrow(table)), function(i) as.list(table[i, ]))
}
standard <- c("Days > 10", "Days < 2 * 5 - 1", "Days - 10 = 0", "Intercept / Days > 24", "exp(Days / 10) > 3", "abs(Days - 10) < 2",
              "sqrt(Intercept) - 15 > 1", "-Days^2 < -100", "log(Intercept) = 5.5")
spread <- c("sd_Subject__Days < sigma / 4", "sd_Subject__Days^2 / sigma^2 > 0.05", "cor_Subject__Intercept__Days > 0",
            "b_Days / sd_Subject__Days > 1.5")
exact <- list(
  draws = as.list(draws),
  standard = rows(hypothesis(setNames(draws[, 1:2], c("Intercept", "Days")), standard)$hypothesis),
  robust = rows(hypothesis(setNames(draws[, 1:2], c("Intercept", "Days")), standard, alpha = 0.1, robust = TRUE)$hypothesis),
  spread = rows(hypothesis(draws[, 1:6], spread)$hypothesis)
)

# bayestestR on the same draws.
described <- lapply(list(Intercept = draws$b_Intercept, Days = draws$b_Days, cor = draws$cor_Subject__Intercept__Days), function(x) {
  list(median = median(x), map = as.numeric(map_estimate(x)), pd = as.numeric(p_direction(x)),
       hdi = unlist(hdi(x, ci = 0.95)[, c("CI_low", "CI_high")], use.names = FALSE),
       eti = unlist(eti(x, ci = 0.95)[, c("CI_low", "CI_high")], use.names = FALSE),
       rope_full = as.numeric(rope(x, range = c(-0.25, 11), ci = 1)$ROPE_Percentage),
       rope_95 = as.numeric(rope(x, range = c(-0.25, 11), ci = 0.95)$ROPE_Percentage))
})

results <- list(
  versions = list(brms = as.character(packageVersion("brms")), bridgesampling = as.character(packageVersion("bridgesampling")),
                  bayestestR = as.character(packageVersion("bayestestR")), R = R.version.string),
  logml = list(slopes = evidence(slopes), intercepts = evidence(intercepts), period = evidence(period), none = evidence(none)),
  savage_dickey = list(
    days = as.list(hypothesis(slopes, "Days = 10")$hypothesis[, 2:7]),
    period2 = as.list(hypothesis(period, "period2 = 0")$hypothesis[, 2:7]),
    difference = as.list(hypothesis(period, "period2 - period3 = 0")$hypothesis[, 2:7])
  ),
  levels = list(
    ranef = hypothesis(slopes, "Days > 0", scope = "ranef", group = "Subject")$hypothesis,
    coef = hypothesis(slopes, "Days > 10", scope = "coef", group = "Subject")$hypothesis
  ),
  exact = exact,
  described = described,
  rope_range = list(gaussian = rope_range(slopes), binomial = rope_range(period)),
  r2 = list(slopes = as.numeric(bayes_R2(slopes)), slopes_marginal = as.numeric(bayes_R2(slopes, re_formula = NA)))
)
write_json(results, out, auto_unbox = TRUE, digits = 10, na = "null")
