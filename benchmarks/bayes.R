# Sample one model with brms or rstanarm: Rscript bayes.R <peer> <csv> <formula> <factors> <family> <chains> <draws> <tune> <cores> -> JSON.
a <- commandArgs(trailingOnly = TRUE)
peer <- a[1]
data <- read.csv(a[2], stringsAsFactors = TRUE)
for (name in strsplit(a[4], ",")[[1]]) data[[name]] <- factor(data[[name]])
model <- as.formula(a[3])
n <- as.integer(a[6:9])
suppressMessages(library(peer, character.only = TRUE))
if (peer == "brms") {
  rstan::rstan_options(boost_lib = "/usr/include") # Debian's rstan looks for Boost elsewhere
  start <- proc.time()[["elapsed"]]
  fit <- brm(model, data, family = a[5], chains = n[1], warmup = n[3], iter = n[2] + n[3], cores = n[4], seed = 1, refresh = 0, silent = 2)
  draws <- posterior::as_draws_array(fit)
  draws <- draws[, , !grepl("^lp|^prior|^Intercept", posterior::variables(draws))]
  stan <- fit$fit
} else {
  start <- proc.time()[["elapsed"]]
  linear <- a[5] == "gaussian"
  run <- if (linear) stan_lmer else function(...) stan_glmer(..., family = a[5])
  fit <- run(model, data = data, chains = n[1], warmup = n[3], iter = n[2] + n[3], cores = n[4], seed = 1, refresh = 0)
  draws <- posterior::as_draws_array(as.array(fit))
  stan <- fit$stanfit
}
seconds <- proc.time()[["elapsed"]] - start
found <- posterior::summarise_draws(draws, "mean", "mcse_mean", "ess_bulk", "ess_tail", "rhat")
result <- list(
  seconds = seconds,
  sampling = sum(rstan::get_elapsed_time(stan)),
  divergences = sum(sapply(rstan::get_sampler_params(stan, inc_warmup = FALSE), function(x) sum(x[, "divergent__"]))),
  version = as.character(packageVersion(peer)),
  names = found$variable, mean = found$mean, mcse = found$mcse_mean, ess = found$ess_bulk, tail = found$ess_tail, rhat = found$rhat
)
cat(jsonlite::toJSON(result, auto_unbox = TRUE, digits = 10, na = "null"), "\n")
