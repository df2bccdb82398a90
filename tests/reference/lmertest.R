# Tests of terms and Kenward-Roger by lmerTest and pbkrtest on cases that the stored results lack; writes lmertest.json.
# Usage: Rscript lmertest.R <folder of data sets> <output>
suppressMessages({library(lmerTest); library(jsonlite); library(lme4)})
args <- commandArgs(trailingOnly = TRUE)
read <- function(name) {
  described <- fromJSON(file.path(args[1], "datasets.json"), simplifyVector = FALSE)[[name]]$columns
  data <- read.csv(file.path(args[1], paste0(name, ".csv")), na.strings = "NA", colClasses = NA)
  for (column in names(described)) {
    kind <- described[[column]]$type
    if (kind %in% c("factor", "ordered")) data[[column]] <- factor(data[[column]], levels = unlist(described[[column]]$levels), ordered = kind == "ordered")
  }
  data
}
tight <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-12, ftol_abs = 1e-12, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 1e5))
table <- function(t) tryCatch({t <- suppressMessages(t); list(rows = I(rownames(t)), values = unname(as.matrix(t)))}, error = function(e) NULL)  # lmerTest fails on some
case <- function(dataset, formula, drop = integer(0), contrasts = NULL, kr = TRUE, md = NULL, rhs = 0) {
  data <- read(dataset)
  if (length(drop)) data <- data[-drop, ]
  f <- as.formula(formula)
  fit <- suppressMessages(eval(bquote(lmer(.(f), data = data, contrasts = contrasts, control = tight))))
  out <- list(dataset = dataset, formula = formula, drop = I(drop - 1L), contrasts = contrasts)
  for (type in c("I", "II", "III")) {
    out[[type]] <- table(anova(fit, type = type))
    if (kr) out[[paste0("KR_", type)]] <- table(anova(fit, type = type, ddf = "Kenward-Roger"))
  }
  if (kr) {
    start <- proc.time()[["elapsed"]]
    out$KR_coefficients <- table(coef(summary(fit, ddf = "Kenward-Roger")))
    out$KR_seconds <- proc.time()[["elapsed"]] - start
  }
  if (!is.null(md)) {
    out$L <- md; out$rhs <- rhs
    out$contest <- unname(unlist(contest(fit, md, rhs = rhs)))
    out$KR_contest <- unname(unlist(contest(fit, md, rhs = rhs, ddf = "Kenward-Roger")))
  }
  out
}
odd <- seq(3, 270, by = 7)
cell <- function() { d <- read("cake"); which(d$recipe == "B" & d$temperature == "185") }
cases <- list(
  case("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)"),
  case("cake", "angle ~ recipe * temp + (1 | recipe:replicate)"),
  case("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", drop = odd),
  case("cake", "angle ~ temperature * recipe + (1 | recipe:replicate)", drop = odd, contrasts = list(recipe = "contr.sum", temperature = "contr.treatment")),
  case("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", drop = cell()),
  case("cake", "angle ~ 0 + recipe + temperature + (1 | recipe:replicate)", drop = odd),
  case("cake", "angle ~ temperature + recipe * temp + (1 | replicate) + (1 | recipe:replicate)", drop = odd),
  case("cake", "angle ~ recipe + I(temp - 200) + recipe:I(temp - 200) + (I(temp - 200) | recipe:replicate)", drop = odd, md = rbind(c(0, 1, 0, 0, 0, 0), c(0, 0, 1, 0, 0, 0), c(0, 1, 1, 0, 0, 0)), rhs = c(1, -1, 0)),
  case("sleepstudy_x", "Reaction ~ sex * late * Days + (Days | Subject)", drop = seq(2, 180, by = 5)),
  case("sleepstudy_x", "Reaction ~ sex / Days + (1 | Subject)", drop = seq(2, 180, by = 5)),
  case("sleepstudy_x", "Reaction ~ poly(Days, 2) * sex + (Days || Subject)", drop = seq(2, 180, by = 5)),
  case("md_red", "Effect_Size ~ Condition * Hemisphere + (1 + Condition | SubjectID) + (1 | Experiment) + (1 | Region)", kr = FALSE)
)
write(toJSON(cases, digits = 15, auto_unbox = TRUE, null = "null", na = "null"), args[2])
