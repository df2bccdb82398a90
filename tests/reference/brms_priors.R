# Writes brms_priors.json: the default priors that brms prints for many families and formulas, with the data they are for.
suppressMessages({library(brms); library(jsonlite)})
set.seed(20261120)
n <- 60
d <- data.frame(x = round(rnorm(n, 5, 2), 3), z = round(rnorm(n), 3), f = rep(c("a", "b", "c"), 20), g = rep(letters[1:6], each = 10), h = rep(letters[1:5], 12))
d$y <- round(300 + 4 * d$x + rnorm(n, 0, 30), 2)
d$small <- round(0.02 * d$x + rnorm(n, 0, 0.3), 4)
d$positive <- round(exp(d$y / 80), 4)
d$count <- rpois(n, 4)
d$many <- rnbinom(n, mu = 90, size = 2)
d$size <- sample(3:12, n, TRUE)
d$hits <- rbinom(n, d$size, 0.4)
d$yes <- rbinom(n, 1, 0.5)
d$share <- round(plogis(rnorm(n)), 4)
d$level <- sample(1:4, n, TRUE)
d$off <- round(rnorm(n), 3)
d$inflated <- ifelse(d$yes == 1, d$count, 0)
case <- function(formula, family, link = NULL, ...) {
  f <- if (is.list(formula)) do.call(bf, c(list(as.formula(formula[[1]])), lapply(formula[-1], as.formula))) else bf(as.formula(formula))
  table <- get_prior(f, d, family = do.call(brmsfamily, c(list(family), if (!is.null(link)) list(link = link))))
  table <- as.data.frame(table)[c("prior", "class", "coef", "group", "dpar", "lb", "ub")]
  list(formula = formula, family = family, link = link, priors = table)
}
cases <- list(
  case("y ~ x + f + (x | g)", "gaussian"), case("small ~ x + (1 | g) + (1 | h)", "gaussian"), case("y ~ 0 + f + (1 | g)", "gaussian"),
  case("y ~ x + offset(off)", "gaussian"), case("positive ~ x", "gaussian", "log"), case("y ~ x", "gaussian", "inverse"),
  case("y ~ x + (x || g)", "student"), case("positive ~ x + (1 | g)", "lognormal"), case("positive ~ x + (1 | g)", "Gamma", "log"),
  case("positive ~ x", "Gamma", "inverse"), case("positive ~ x", "inverse.gaussian", "log"),
  case("count ~ x + (1 | g)", "poisson"), case("count ~ x + offset(off)", "poisson"), case("many ~ x + (x | g)", "negbinomial"),
  case("hits | trials(size) ~ x + (1 | g)", "binomial"), case("hits | trials(size) ~ x", "binomial", "probit"),
  case("hits | trials(size) ~ x + (1 | g)", "beta_binomial"), case("yes ~ x + (1 | g)", "bernoulli"), case("yes ~ x", "bernoulli", "cloglog"),
  case("share ~ x + (1 | g)", "Beta"), case("inflated ~ x + (1 | g)", "zero_inflated_poisson"),
  case("inflated ~ x", "zero_inflated_negbinomial"), case("hits | trials(size) ~ x", "zero_inflated_binomial"),
  case("inflated ~ x", "hurdle_poisson"), case("inflated ~ x", "hurdle_negbinomial"),
  case("level ~ x + (1 | g)", "cumulative"), case("level ~ x", "sratio"), case("level ~ x", "cratio", "probit"), case("level ~ x", "acat"),
  case(list("y ~ x + (1 | g)", sigma = "sigma ~ z + (1 | h)"), "gaussian"), case(list("y ~ x", sigma = "sigma ~ z", nu = "nu ~ 1"), "student"),
  case(list("inflated ~ x", zi = "zi ~ z + (1 | g)"), "zero_inflated_poisson"), case(list("many ~ x", shape = "shape ~ z"), "negbinomial"),
  case(list("hits | trials(size) ~ x", phi = "phi ~ z"), "beta_binomial"), case(list("inflated ~ x", hu = "hu ~ z"), "hurdle_poisson"),
  case(list("positive ~ x", shape = "shape ~ z"), "Gamma", "log"), case(list("share ~ x", phi = "phi ~ z"), "Beta")
)
write_json(list(made_with = paste("R", getRversion(), "brms", packageVersion("brms")), data = as.list(d), cases = cases), "brms_priors.json", auto_unbox = TRUE, digits = NA, null = "null")
