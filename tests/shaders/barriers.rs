//! The number of barriers of a kernel after a compiler unrolls its loops. Drivers unroll loops that index arrays at any size, and each
//! barrier splits the code: a product of 8 rows with 16 of them took LLVM 19 more than 20 s to compile, with 3 of them 3 s.

use super::parse;
use naga::{BinaryOperator, Block, Expression, Function, Handle, Literal, Module, Statement};
use wgformer::kernel::{AdapterClass, Caps, Dialect, assemble};
use wgformer::program::Recording;
use wgformer::{DType, Graph, ops};

/// The most barriers of a product of few rows.
const MOST: u32 = 4;

#[test]
fn products_of_few_rows_have_few_barriers() {
    let caps = Caps::baseline().with_class(AdapterClass::Gpu);
    for dtype in [DType::F32, DType::Q8_0] {
        for rows in [1, 2, 4, 8] {
            let mut g = Graph::new();
            let a = g.input("a", [rows, 64], DType::F32).expect("an input");
            let b = g.parameter("b", [64, 64], dtype).expect("a weight");
            let out = ops::matmul_nt(&mut g, a, b).expect("a product");
            g.output("out", out).expect("an output");
            let recording = Recording::new(&g, &caps).expect("a recording");
            let [dispatch] = recording.dispatches() else { panic!("several dispatches") };
            assert!(dispatch.kernel.name.starts_with("matmul_row"), "{} of {rows} rows", dispatch.kernel.name);
            let text = assemble(dispatch, Dialect::Naga).text;
            let (module, _) = parse(&text, [false; 3]).expect("a text");
            let function = &module.entry_points[0].function;
            let count = Unrolled { module: &module, function }.block(&function.body);
            println!("{} of {rows} rows: {count} barriers", dispatch.kernel.name);
            assert!((1..=MOST).contains(&count), "{} of {rows} rows comes to {count} barriers", dispatch.kernel.name);
        }
    }
}

/// Counts in one function.
#[derive(Clone, Copy)]
struct Unrolled<'a> {
    module: &'a Module,
    function: &'a Function,
}

impl Unrolled<'_> {
    fn block(self, block: &Block) -> u32 {
        block.iter().map(|statement| self.statement(statement)).sum()
    }

    fn statement(self, statement: &Statement) -> u32 {
        match statement {
            Statement::ControlBarrier(_) | Statement::WorkGroupUniformLoad { .. } => 1,
            Statement::Block(block) => self.block(block),
            Statement::If { accept, reject, .. } => self.block(accept) + self.block(reject),
            Statement::Switch { cases, .. } => cases.iter().map(|case| self.block(&case.body)).sum(),
            Statement::Loop { body, continuing, .. } => {
                self.rounds(body, continuing).unwrap_or(1) * (self.block(body) + self.block(continuing))
            }
            Statement::Call { function, .. } => {
                let function = &self.module.functions[*function];
                Unrolled { function, ..self }.block(&function.body)
            }
            _ => 0,
        }
    }

    /// The iterations of `for (var i = 0u; i < constant; i += constant)`; `None` for other loops.
    fn rounds(self, body: &Block, continuing: &Block) -> Option<u32> {
        let condition = body.iter().find_map(|statement| match statement {
            Statement::If { condition, reject, .. } if matches!(reject.first(), Some(Statement::Break)) => {
                Some(*condition)
            }
            _ => None,
        })?;
        let end = self.binary(condition, BinaryOperator::Less)?;
        let step = continuing.iter().find_map(|statement| match statement {
            Statement::Store { value, .. } => self.binary(*value, BinaryOperator::Add),
            _ => None,
        })?;
        Some(end.div_ceil(step.max(1)))
    }

    /// The right side of this operation, if it is a constant.
    fn binary(self, expression: Handle<Expression>, wanted: BinaryOperator) -> Option<u32> {
        match self.function.expressions[expression] {
            Expression::Binary { op, right, .. } if op == wanted => match self.function.expressions[right] {
                Expression::Constant(constant) => {
                    number(&self.module.global_expressions[self.module.constants[constant].init])
                }
                ref other => number(other),
            },
            _ => None,
        }
    }
}

fn number(expression: &Expression) -> Option<u32> {
    match expression {
        Expression::Literal(Literal::U32(number)) => Some(*number),
        _ => None,
    }
}
