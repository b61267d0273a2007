//! What an execution of the model must be able to do.

use super::{Config, Kernel, Norm, Parameter, Site, Trainable};

/// Carries out the forward pass. Tensors are T×d unless said otherwise, one row per token.
///
/// Operations take their inputs by reference and hand back a new tensor; a tensor that is no longer needed is dropped
/// at once, which is when an encrypted executor gets its limbs back. An executor may represent a tensor lazily (scaled,
/// centred, or as a factor and a rest) as long as the operations mean what they say here.
pub trait Executor {
    /// A matrix in whatever form the executor computes with.
    type Tensor;
    /// What can go wrong.
    type Error;

    /// x·W.
    fn linear(&mut self, x: &Self::Tensor, weight: Parameter) -> Result<Self::Tensor, Self::Error>;

    /// a + b.
    fn add(&mut self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// a ⊙ b.
    fn multiply(&mut self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// The function of a site, entry by entry: tanh, and what the softmax of the loss needs.
    fn apply(&mut self, x: &Self::Tensor, site: Site) -> Result<Self::Tensor, Self::Error>;

    /// gain ⊙ (x − mean)/√(variance + ε) + bias, row by row. The argument of the site's 1/√ is variance + ε.
    fn layer_norm(&mut self, x: &Self::Tensor, norm: Norm) -> Result<Self::Tensor, Self::Error>;

    /// Row 0: T×d → 1×d.
    fn first_token(&mut self, x: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Every row times its token's entry of the mask (1 = a token, 0 = padding).
    fn mask_tokens(&mut self, x: &Self::Tensor, mask: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// S_ij = exp(−‖q_i − k_j‖²/(2√n)) for every head. The argument of the site's exp is that exponent.
    fn gaussian_scores(
        &mut self,
        query: &Self::Tensor,
        key: &Self::Tensor,
        layer: usize,
    ) -> Result<Self::Tensor, Self::Error>;

    /// S_ij = m_j·exp(q_i·k_j/√n) / Σ_l m_l·exp(q_i·k_l/√n) for every head, m being the mask. The argument of the layer's
    /// exp is that exponent, that of its normaliser's 1/x the sum.
    fn softmax_scores(
        &mut self,
        query: &Self::Tensor,
        key: &Self::Tensor,
        mask: &Self::Tensor,
        layer: usize,
    ) -> Result<Self::Tensor, Self::Error>;

    /// S·V for every head, side by side again.
    fn mix(&mut self, scores: &Self::Tensor, value: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// a ⊙ ReLU(b), where `hidden` is (a | b): T×2f → T×f.
    fn gate(&mut self, hidden: &Self::Tensor, layer: usize) -> Result<Self::Tensor, Self::Error>;
}

/// Adds what the backward pass needs. Gradients of weights never leave the executor: it sums them where the optimizer
/// will find them.
///
/// What an operation of the forward pass computed on the way (a norm's 1/√, a gate's ReLU) may be kept with its output,
/// or by its [`Site`], which one sequence visits once; the backward pass comes back to the same places.
pub trait TrainingExecutor: Executor {
    /// The weights whose gradients are summed. The program asks for no others, and for nothing that only they need.
    fn trained(&self) -> Trainable;

    /// a − b.
    fn subtract(&mut self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// factor·x.
    fn scale(&mut self, x: &Self::Tensor, factor: f64) -> Result<Self::Tensor, Self::Error>;

    /// dy·Wᵀ.
    fn linear_transposed(
        &mut self,
        dy: &Self::Tensor,
        weight: Parameter,
    ) -> Result<Self::Tensor, Self::Error>;

    /// Adds xᵀ·dy to the gradient of the weight, which is a trained one.
    fn accumulate(
        &mut self,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        weight: Parameter,
    ) -> Result<(), Self::Error>;

    /// X·Yᵀ for every head: rows of X against rows of Y.
    fn head_products(&mut self, x: &Self::Tensor, y: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Sᵀ·X for every head.
    fn mix_transposed(
        &mut self,
        scores: &Self::Tensor,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, Self::Error>;

    /// diag(S·1)·X for every head: row i of X times the sum of row i of S.
    fn weigh_by_rows(&mut self, scores: &Self::Tensor, x: &Self::Tensor)
    -> Result<Self::Tensor, Self::Error>;

    /// diag(Sᵀ·1)·X for every head: row j of X times the sum of column j of S.
    fn weigh_by_columns(
        &mut self,
        scores: &Self::Tensor,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, Self::Error>;

    /// dS → the gradient by the scores' exponents: dS ⊙ S, or, of softmax, S ⊙ (dS − (sums of the rows of dS ⊙ S)).
    fn kernel_backward(
        &mut self,
        scores: &Self::Tensor,
        d_scores: &Self::Tensor,
        layer: usize,
    ) -> Result<Self::Tensor, Self::Error>;

    /// E, the gradient by the exponents of the scores, → those by queries and keys, where wanted.
    ///
    /// Softmax: z_ij = q_i·k_j/√n gives dq_i = (E·K)_i/√n and dk_j = (Eᵀ·Q)_j/√n. The Gaussian kernel's
    /// z_ij = −‖q_i − k_j‖²/(2√n) gives dq_i = ((E·K)_i − (E·1)_i·q_i)/√n and dk_j = ((Eᵀ·Q)_j − (Eᵀ·1)_j·k_j)/√n.
    /// Both read the same matrices: an executor may make them in one go.
    fn exponents_backward(
        &mut self,
        config: &Config,
        e: &Self::Tensor,
        [query, key]: [&Self::Tensor; 2],
        wanted: [bool; 2],
    ) -> Result<[Option<Self::Tensor>; 2], Self::Error> {
        let mut gradients = [None, None];
        for (i, gradient) in gradients.iter_mut().enumerate().filter(|(i, _)| wanted[*i]) {
            let mut sum = if i == 0 { self.mix(e, key)? } else { self.mix_transposed(e, query)? };
            if config.kernel == Kernel::Gaussian {
                let held =
                    if i == 0 { self.weigh_by_rows(e, query)? } else { self.weigh_by_columns(e, key)? };
                sum = self.subtract(&sum, &held)?;
            }
            *gradient = Some(self.scale(&sum, 2.0 * config.kernel_scale())?);
        }
        Ok(gradients)
    }

    /// dy → dx through a layer norm of x; adds to the gradients of gain and bias where they are trained.
    ///
    /// With x̂ = (x − mean)·r, r = 1/√(variance + ε) and g = gain ⊙ dy, row by row:
    /// dx = r·(g − mean(g) − x̂·mean(g ⊙ x̂)); d gain += dy ⊙ x̂; d bias += dy.
    fn layer_norm_backward(
        &mut self,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        norm: Norm,
    ) -> Result<Self::Tensor, Self::Error>;

    /// dg → d(a | b) through g = a ⊙ ReLU(b): da = dg ⊙ ReLU(b), db = dg ⊙ a where b > 0, else 0.
    fn gate_backward(
        &mut self,
        hidden: &Self::Tensor,
        d_gated: &Self::Tensor,
        layer: usize,
    ) -> Result<Self::Tensor, Self::Error>;

    /// dy → dx through y = tanh x: dy ⊙ (1 − y²).
    fn tanh_backward(
        &mut self,
        x: &Self::Tensor,
        y: &Self::Tensor,
        dy: &Self::Tensor,
    ) -> Result<Self::Tensor, Self::Error>;

    /// Adds a 1×d tensor to row 0 of a T×d one: what `first_token` does to a gradient.
    fn add_to_first_token(
        &mut self,
        x: &Self::Tensor,
        first: &Self::Tensor,
    ) -> Result<Self::Tensor, Self::Error>;

    /// Every row minus its mean.
    fn centre(&mut self, x: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Every entry replaced by the sum of its row.
    fn row_sums(&mut self, x: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;
}
